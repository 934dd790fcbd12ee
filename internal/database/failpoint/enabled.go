//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// stallDuration is how long STEP=stall blocks. It is longer than clients that wait
// for each other need for anything else.
const stallDuration = 500 * time.Millisecond

// Hit fails if the file names step. It first writes a line to standard error.
func Hit(step string) {
	file := os.Getenv("AGENTMARKET_FAILPOINT")
	text, err := os.ReadFile(file)
	name, mode, _ := strings.Cut(string(text), "=")
	if err != nil || name != step || os.Remove(file) != nil {
		return
	}
	fmt.Fprintf(os.Stderr, "failpoint %s %s\n", step, mode)
	switch mode {
	case "panic":
		panic("failpoint " + step)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal arrives
	case "stall":
		time.Sleep(stallDuration)
	}
}
