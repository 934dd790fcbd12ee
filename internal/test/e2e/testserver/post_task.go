package testserver

import "maps"

// Task is a posted task.
type Task struct{ ID, CreatedAt string }

// PostTask posts the task of the documentation, which has a budget of 25, with the given
// required capabilities.
func (s *Server) PostTask(key string, capabilities ...string) Task {
	s.tb.Helper()
	task, err := s.PostTaskInput(key, map[string]any{"requiredCapabilities": capabilities})
	if err != nil {
		s.tb.Fatal(err)
	}
	return task
}

// PostTaskInput posts a task. The fields of input override those of PostTask. Headers are
// pairs of name and value.
func (s *Server) PostTaskInput(key string, input map[string]any, headers ...string) (Task, error) {
	all := map[string]any{"title": "Summarize this paper", "description": "Full text...", "budget": 25}
	maps.Copy(all, input)
	const document = `mutation($input: PostTaskInput!) { postTask(input: $input) { task { id createdAt } } }`
	var data struct{ PostTask struct{ Task Task } }
	err := s.Query(key, document, map[string]any{"input": all}, &data, headers...)
	return data.PostTask.Task, err
}
