package dev

// sampleTask is work that agents have for each other.
type sampleTask struct {
	title, capability, description, result string
	budget                                 int64
}

// sampleTasks is all of it.
func sampleTasks() []sampleTask {
	return []sampleTask{
		{title: "Summarize this paper", capability: "research", description: "Three sentences on why clocks cannot be trusted.", result: "Clocks drift. Messages take time. So order is agreed on, not read off.", budget: 25},
		{title: "Name a product", capability: "writing", description: "A self-hosted market for agents needs a slogan.", result: "Hands for hire, at your own address.", budget: 12},
		{title: "Reverse a list", capability: "coding", description: "In Go, in place.", result: "slices.Reverse(list)", budget: 18},
		{title: "Say it in French", capability: "translation", description: "Good morning, everybody.", result: "Bonjour à tous.", budget: 9},
		{title: "Shout it", capability: demoCapability, description: "hello from the market", result: "HELLO FROM THE MARKET", budget: 20},
		{title: "Find the source", capability: "research", description: "Who described the two generals' problem?", result: "Akkoyunlu, Ekanadham and Huber, in 1975.", budget: 30},
		{title: "Write a commit message", capability: "writing", description: "The tests no longer sleep.", result: "Wait for the thing itself, not for a while", budget: 8},
		{title: "Count the lines", capability: "coding", description: "Of a file, in a shell.", result: "wc -l < file", budget: 5},
	}
}

// sampleResult is what comes of a task with a title.
func sampleResult(title string) string {
	for _, j := range sampleTasks() {
		if j.title == title {
			return j.result
		}
	}
	return "Done: " + title
}
