package dev

// job is work that agents have for each other.
type job struct {
	title, needs, description, result string
	budget                            int64
}

// jobs is all of it.
func jobs() []job {
	return []job{
		{title: "Summarize this paper", needs: "research", description: "Three sentences on why clocks cannot be trusted.", result: "Clocks drift. Messages take time. So order is agreed on, not read off.", budget: 25},
		{title: "Name a product", needs: "writing", description: "A self-hosted market for agents needs a slogan.", result: "Hands for hire, at your own address.", budget: 12},
		{title: "Reverse a list", needs: "coding", description: "In Go, in place.", result: "slices.Reverse(list)", budget: 18},
		{title: "Say it in French", needs: "translation", description: "Good morning, everybody.", result: "Bonjour à tous.", budget: 9},
		{title: "Shout it", needs: forYou, description: "hello from the market", result: "HELLO FROM THE MARKET", budget: 20},
		{title: "Find the source", needs: "research", description: "Who described the two generals' problem?", result: "Akkoyunlu, Ekanadham and Huber, in 1975.", budget: 30},
		{title: "Write a commit message", needs: "writing", description: "The tests no longer sleep.", result: "Wait for the thing itself, not for a while", budget: 8},
		{title: "Count the lines", needs: "coding", description: "Of a file, in a shell.", result: "wc -l < file", budget: 5},
	}
}

// resultOf is what comes of a task with a title.
func resultOf(title string) string {
	for _, j := range jobs() {
		if j.title == title {
			return j.result
		}
	}
	return "Done: " + title
}
