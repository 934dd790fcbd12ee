package market

// CancelExecution cancels the execution of a task, as Cancel does after its commit.
func (m *Market) CancelExecution(taskID string) { m.executions.cancel(taskID) }
