package cli_test

import (
	"bytes"
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/internal/cli"
	"agentmarket.space/server/internal/client"
)

// runCLI runs the program. Only what ends by itself may be run so.
func runCLI(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	ended, cancel := context.WithCancel(t.Context())
	cancel() // whatever goes on by mistake ends at once
	code = cli.Run(ended, args, client.Streams{In: strings.NewReader(""), Out: &out, Err: &err})
	return out.String(), err.String(), code
}

// leafCommands are the commands that can be run, those of the future too.
func leafCommands(t *testing.T) []*kong.Node {
	t.Helper()
	model, err := cli.Model()
	if err != nil {
		t.Fatal(err)
	}
	return model.Leaves(false)
}

// TestUsage_rejectsBadArguments: every command is called wrongly in every way that it can be: a flag
// that there is not, an argument too many, too few, a value of another type. It says
// so in a line, ends with 2 and does nothing.
func TestUsage_rejectsBadArguments(t *testing.T) {
	t.Parallel()
	for _, node := range leafCommands(t) {
		t.Run(node.Path(), func(t *testing.T) {
			t.Parallel()
			right := validArgs(node)
			refused := func(says string, args ...string) {
				t.Helper()
				stdout, stderr, code := runCLI(t, args...)
				if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "agentmarket: ") || !strings.Contains(stderr, says) || strings.Count(stderr, "\n") != 1 {
					t.Errorf("%q ended with %d, printed %q and said %q, want %q", args, code, stdout, stderr, says)
				}
			}
			refused("unknown flag --nonsense", append(slices.Clone(right), "--nonsense")...)
			refused("unexpected argument surplus", append(slices.Clone(right), "surplus")...)
			if bare := strings.Fields(node.Path()); len(bare) < len(right) {
				refused("", bare...)
			}
			for _, flag := range node.Flags {
				if isTyped(flag) {
					refused("--"+flag.Name, append(slices.Clone(right), "--"+flag.Name+"=nonsense")...)
				}
				if !flag.IsBool() {
					refused("--"+flag.Name, append(slices.Clone(right), "--"+flag.Name)...)
				}
			}
		})
	}
}

// validArgs is a command with what it cannot do without.
func validArgs(node *kong.Node) []string {
	args := strings.Fields(node.Path())
	for _, arg := range node.Positional {
		switch {
		case arg.Enum != "":
			args = append(args, arg.EnumSlice()[0])
		case strings.Contains(arg.Help, "Where to send"):
			args = append(args, "http://127.0.0.1:1")
		default:
			args = append(args, "1")
		}
	}
	for _, flag := range node.Flags {
		if flag.Required {
			args = append(args, "--"+flag.Name+"=1")
		}
	}
	return args
}

// isTyped reports whether a flag does not take every text.
func isTyped(flag *kong.Flag) bool {
	of := flag.Target.Type()
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	return flag.Enum != "" || of.Kind() != reflect.String
}

// TestUsage_suggestsCommand: a word that is no command is answered with the one that may
// be meant.
func TestUsage_suggestsCommand(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		`unexpected argument lisen, did you mean "listen"?; 'agentmarket --help' lists the commands`: {"lisen"},
		`unexpected argument veryfi, did you mean "verify"?`:                                         {"--lease=2h", "veryfi"},
		`unexpected argument acept, did you mean "accept"?; 'agentmarket tasks --help'`:              {"tasks", "acept", "1"},
		`unexpected argument re, did you mean one of "dev", "restore", "rekey", "register"?`:         {"re"},
		"unexpected argument something-else; 'agentmarket --help' lists the commands":                {"something-else"},
		`flag --lease applies to the default command "serve", not "verify"`:                          {"--lease=2h", "verify"},
		`unknown flag --leese, did you mean "--lease"?`:                                              {"--leese=2h"},
		"unexpected argument surplus":                                                                {"serve", "surplus"},
	} {
		_, stderr, code := runCLI(t, args...)
		if code != 2 || !strings.HasPrefix(stderr, "agentmarket: "+want) {
			t.Errorf("%q ended with %d and said %q, want %q", args, code, stderr, want)
		}
	}
}

// TestCompleteTask_rejectsBinaryInput: bytes that are no text are refused before anything is sent, since JSON
// would have others instead.
func TestCompleteTask_rejectsBinaryInput(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	to := client.Streams{In: strings.NewReader("\x89PNG\xff"), Out: &said, Err: &said}
	if code := cli.Run(t.Context(), []string{"tasks", "complete", "1", "-", "--url=http://127.0.0.1:1"}, to); code != 1 || !strings.Contains(said.String(), "no UTF-8 text") {
		t.Errorf("ended with %d and said %q", code, said.String())
	}
}
