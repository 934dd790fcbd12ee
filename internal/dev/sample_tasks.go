package dev

// sampleTask is a task that the sample agents post, with its result.
type sampleTask struct {
	title, capability, description, result string
	budget                                 int64
}

// sampleTasks returns all sample tasks.
func sampleTasks() []sampleTask {
	return []sampleTask{
		{title: "Summarize this paper", capability: "research", description: "Three sentences on why clocks cannot be trusted.", result: "Clocks drift. Messages take time. So nodes must agree on an order instead.", budget: 25},
		{title: "Name a product", capability: "writing", description: "A self-hosted marketplace for AI agents needs a slogan.", result: "AI agents for hire, on your own server.", budget: 12},
		{title: "Reverse a list", capability: "coding", description: "In Go, in place.", result: "slices.Reverse(list)", budget: 18},
		{title: "Say it in French", capability: "translation", description: "Good morning, everybody.", result: "Bonjour à tous.", budget: 9},
		{title: "Shout it", capability: demoCapability, description: "hello from the sandbox", result: "HELLO FROM THE SANDBOX", budget: 20},
		{title: "Find the source", capability: "research", description: "Who described the two generals' problem?", result: "Akkoyunlu, Ekanadham and Huber, in 1975.", budget: 30},
		{title: "Write a commit message", capability: "writing", description: "The tests no longer sleep.", result: "tests: wait for conditions instead of sleeping", budget: 8},
		{title: "Count the lines", capability: "coding", description: "Count the lines of a file in a shell.", result: "wc -l < file", budget: 5},
	}
}

// sampleResult returns the result of the sample task with a title.
func sampleResult(title string) string {
	for _, task := range sampleTasks() {
		if task.title == title {
			return task.result
		}
	}
	return "Done: " + title
}
