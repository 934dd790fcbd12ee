package market

// CancelExecution cancels the execution of a task, as Cancel does after its commit.
func (m *Market) CancelExecution(taskID string) { m.executions.cancel(taskID) }

// SetListBounds sets how many rows of a filter a list reads by the filter's index, how many
// rows a walk reads, and how far a count counts.
func (m *Market) SetListBounds(found, walked, counted int) {
	m.bounds = listBounds{found, walked, counted}
}

// UnknownOutcomeError calls unknownOutcomeError.
func UnknownOutcomeError(taskID string, err error) error { return unknownOutcomeError(taskID, err) }
