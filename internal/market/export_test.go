package market

// CutOff cuts a hire off as its cancellation does once that is committed.
func (m *Market) CutOff(taskID string) { m.running.stop(taskID) }
