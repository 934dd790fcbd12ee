//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// stallDuration is for how long a step hangs: longer than clients that wait for one
// another need for anything else.
const stallDuration = 500 * time.Millisecond

// Hit is called when a step is reached. It says so on standard error before it
// fails.
func Hit(step string) {
	file := os.Getenv("AGENTMARKET_FAILPOINT")
	text, err := os.ReadFile(file)
	at, how, _ := strings.Cut(string(text), "=")
	if err != nil || at != step || os.Remove(file) != nil {
		return
	}
	fmt.Fprintf(os.Stderr, "failpoint %s %s\n", step, how)
	switch how {
	case "panic":
		panic("failpoint " + step)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	case "stall":
		time.Sleep(stallDuration)
	}
}
