package cli_test

import (
	"bytes"
	"context"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/internal/cli"
	"agentmarket.space/server/internal/client"
)

// runCLI runs the program with a canceled context, for commands that do not serve.
func runCLI(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // stops a command that serves by mistake
	code = cli.Run(ctx, args, client.Streams{In: strings.NewReader(""), Out: &out, Err: &err})
	return out.String(), err.String(), code
}

// leafCommands returns all commands without subcommands, including hidden ones.
func leafCommands(t *testing.T) []*kong.Node {
	t.Helper()
	model, err := cli.Model()
	if err != nil {
		t.Fatal(err)
	}
	return model.Leaves(false)
}

// TestUsage_rejectsBadArguments calls every command with an unknown flag, too many and
// too few arguments, and values of the wrong type. Each call prints one line and exits
// with 2.
func TestUsage_rejectsBadArguments(t *testing.T) {
	t.Parallel()
	for _, node := range leafCommands(t) {
		t.Run(node.Path(), func(t *testing.T) {
			t.Parallel()
			args := validArgs(node)
			expectError := func(want string, args ...string) {
				t.Helper()
				stdout, stderr, code := runCLI(t, args...)
				if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "agentmarket: ") || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
					t.Errorf("%q: exit code %d, stdout %q, stderr %q, want %q", args, code, stdout, stderr, want)
				}
			}
			expectError("unknown flag --nonsense", append(slices.Clone(args), "--nonsense")...)
			expectError("unexpected argument surplus", append(slices.Clone(args), "surplus")...)
			if bare := strings.Fields(node.Path()); len(bare) < len(args) {
				expectError("", bare...)
			}
			for _, flag := range node.Flags {
				if isTyped(flag) {
					expectError("--"+flag.Name, append(slices.Clone(args), "--"+flag.Name+"=nonsense")...)
				}
				if !flag.IsBool() {
					expectError("--"+flag.Name, append(slices.Clone(args), "--"+flag.Name)...)
				}
			}
		})
	}
}

// validArgs returns a command line with all required arguments and flags.
func validArgs(node *kong.Node) []string {
	args := strings.Fields(node.Path())
	for _, arg := range node.Positional {
		switch {
		case arg.Enum != "":
			args = append(args, arg.EnumSlice()[0])
		case strings.Contains(arg.Help, "URL of the receiver"):
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

// isTyped reports whether a flag rejects some values.
func isTyped(flag *kong.Flag) bool {
	typ := flag.Target.Type()
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	return flag.Enum != "" || typ.Kind() != reflect.String
}

// TestUsage_suggestsCommand checks the suggestions for unknown commands.
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
			t.Errorf("%q: exit code %d, stderr %q, want %q", args, code, stderr, want)
		}
	}
}

// TestCompleteTask_rejectsBinaryInput checks that invalid UTF-8 is rejected before a
// request is sent.
func TestCompleteTask_rejectsBinaryInput(t *testing.T) {
	t.Parallel()
	var output bytes.Buffer
	to := client.Streams{In: strings.NewReader("\x89PNG\xff"), Out: &output, Err: &output}
	if code := cli.Run(t.Context(), []string{"tasks", "complete", "1", "-", "--url=http://127.0.0.1:1"}, to); code != 1 || !strings.Contains(output.String(), "not valid UTF-8") {
		t.Errorf("exit code %d, output %q", code, output.String())
	}
}

// TestHelp_texts checks that every command, argument and flag has a help text: one or
// more sentences that start with a capital letter and end with a period.
func TestHelp_texts(t *testing.T) {
	t.Parallel()
	sentence := regexp.MustCompile(`^[A-Z].*\.$`)
	for _, node := range leafCommands(t) {
		texts := map[string]string{node.Path(): node.Help}
		for _, arg := range node.Positional {
			texts[node.Path()+" "+arg.Name] = arg.Help
		}
		for _, flag := range node.Flags {
			texts[node.Path()+" --"+flag.Name] = flag.Help
		}
		for name, text := range texts {
			if !sentence.MatchString(text) {
				t.Errorf("%s: got help text %q", name, text)
			}
		}
	}
}
