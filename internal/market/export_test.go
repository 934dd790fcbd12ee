package market

// CancelExecution cuts a hire off as its cancellation does once that is committed.
func (m *Market) CancelExecution(taskID string) { m.executions.cancel(taskID) }
