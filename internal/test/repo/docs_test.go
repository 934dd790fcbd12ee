package repo

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
)

// snippet is a code block of a document.
type snippet struct {
	kind, text string
	line       int
}

// codeBlocks returns the code blocks of a document.
func codeBlocks(text string) (found []snippet) {
	var open *snippet
	for i, line := range strings.Split(text, "\n") {
		kind, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case open == nil && fence:
			open = &snippet{kind: kind, line: i + 1}
		case open != nil && fence:
			found, open = append(found, *open), nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return found
}

// markdownFiles returns the Markdown files of the repository by name.
func markdownFiles(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	walkModule(t, func(name string) error {
		if path.Ext(name) != ".md" || strings.HasPrefix(name, "internal/guide/templates/") {
			return nil
		}
		text, err := os.ReadFile(name)
		found[name] = string(text)
		return err
	})
	return found
}

// TestSnippets checks the syntax of code blocks: GraphQL against the schema, JSON, shell,
// JavaScript and Python. Other tests run the commands of README.md and skill.md.
func TestSnippets(t *testing.T) {
	t.Parallel()
	schema := loadSchema(t)
	for name, text := range markdownFiles(t) {
		for _, s := range codeBlocks(text) {
			if err := s.check(t, schema); err != nil {
				t.Errorf("%s:%d: %v", name, s.line, err)
			}
		}
	}
}

func TestExplorerExamples_matchSchema(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("graph/explorer/assets/examples.graphql")
	if err != nil {
		t.Fatal(err)
	}
	examples := snippet{kind: "graphql", text: string(text)}
	if err := examples.check(t, loadSchema(t)); err != nil || !strings.Contains(examples.text, "subscription") {
		t.Errorf("%v in %s", err, text)
	}
}

func TestSnippets_findsErrors(t *testing.T) {
	t.Parallel()
	schema := loadSchema(t)
	for _, s := range codeBlocks("```graphql\n{ nothing }\n```\n```json\n{'a': 1}\n```\n```sh\nif true; then\n```\n```js\nconst = 1;\n```\n```perl\n1\n```\n") {
		if s.check(t, schema) == nil {
			t.Errorf("%+v has no error", s)
		}
	}
}

func loadSchema(t *testing.T) *ast.Schema {
	t.Helper()
	text, err := os.ReadFile("schema.graphqls")
	if err != nil {
		t.Fatal(err)
	}
	schema, err := gqlparser.LoadSchema(&ast.Source{Name: "schema.graphqls", Input: string(text)})
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// check returns the error of a snippet.
func (s *snippet) check(t *testing.T, schema *ast.Schema) error {
	t.Helper()
	switch s.kind {
	case "graphql":
		if _, faults := gqlparser.LoadQueryWithRules(schema, s.text, nil); len(faults) > 0 {
			return faults
		}
		return nil
	case "json":
		var value any
		return json.Unmarshal([]byte(s.text), &value)
	case "sh":
		return parseWith(t, s.text, "sh", "-n")
	case "js":
		return parseWith(t, s.text, "node", "--input-type=module", "--check")
	case "python":
		return parseWith(t, s.text, "python3", "-c", "import ast, sys; ast.parse(sys.stdin.read())")
	default:
		if uncheckedKinds()[s.kind] == "" {
			return fmt.Errorf("unknown language %q: check it or add it to uncheckedKinds", s.kind)
		}
		return nil
	}
}

// uncheckedKinds maps the languages that are not parsed to the reason.
func uncheckedKinds() map[string]string {
	return map[string]string{
		"http":    "transcripts, which compat.TestTranscripts compares with the server",
		"sql":     "statements for the operator, which the tests of replicas run",
		"mermaid": "a diagram, which TestStates compares with the transitions",
		"":        "a drawing or terminal output",
		"nginx":   "a configuration, which clients_test.TestBelowPath runs",
		"caddy":   "a configuration, which clients_test.TestBelowPath runs if Caddy is installed",
		"haproxy": "a configuration, which clients_test.TestBelowPath runs if HAProxy is installed",
		"ts":      "TypeScript, which clients_test.TestTypescript compiles",
		"text":    "terminal output",
		"console": "terminal output",
	}
}

// parseWith parses code with a program. Outside CI a missing program is not an error.
func parseWith(t *testing.T, text, program string, args ...string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// TestLinks: every relative link leads to an existing file and heading.
func TestLinks(t *testing.T) {
	t.Parallel()
	found := markdownFiles(t)
	for name, text := range found {
		for _, link := range relativeLinks(text) {
			if err := checkLink(found, name, link); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for link, wrong := range map[string]bool{"README.md#quick-start": false, "#run-it": false, "docs": false, "README.md#quick": true, "docs/nothing.md": true, "LICENSE#a": true} {
		if (checkLink(found, "README.md", link) != nil) != wrong {
			t.Errorf("%q: want it found wrong %t", link, wrong)
		}
	}
}

// relativeLinks returns the relative links of a document.
func relativeLinks(text string) (all []string) {
	for _, s := range codeBlocks(text) {
		text = strings.ReplaceAll(text, s.text, "")
	}
	for _, found := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(found[1], "://") && !strings.HasPrefix(found[1], "mailto:") {
			all = append(all, found[1])
		}
	}
	return all
}

// checkLink checks that the target of a link exists.
func checkLink(found map[string]string, from, link string) error {
	file, heading, _ := strings.Cut(link, "#")
	to := from
	if file != "" {
		to = path.Join(path.Dir(from), file)
	}
	if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: no such file", link)
	}
	if heading == "" {
		return nil
	}
	for line := range strings.SplitSeq(found[to], "\n") {
		if title := strings.TrimLeft(line, "#"); title != line && headingAnchor(title) == heading {
			return nil
		}
	}
	return fmt.Errorf("%s: no such heading in %s", link, to)
}

// headingAnchor returns the anchor that GitHub creates for a heading.
func headingAnchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, strings.TrimSpace(title))
}

// update makes TestGraphQLPage write the page.
var update = flag.Bool("update", false, "rewrite what is generated in documents")

// TestGraphQLPage: the tables of docs/api/graphql.md list every query, mutation and
// subscription with its description. -update writes them.
func TestGraphQLPage(t *testing.T) {
	t.Parallel()
	const name = "docs/api/graphql.md"
	schema := loadSchema(t)
	page, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want := string(page)
	for mark, root := range map[string]*ast.Definition{"queries": schema.Query, "mutations": schema.Mutation, "subscriptions": schema.Subscription} {
		begin, end := "<!-- "+mark+" -->\n", "<!-- /"+mark+" -->\n"
		before, rest, begins := strings.Cut(want, begin)
		_, after, ends := strings.Cut(rest, end)
		if !begins || !ends {
			t.Fatalf("%s has no table of %s", name, mark)
		}
		want = before + begin + operationsTable(root) + end + after
	}
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if want != string(page) {
		t.Errorf("%s is out of date: run make generate", name)
	}
}

// operationsTable formats the fields of a root type.
func operationsTable(root *ast.Definition) string {
	var out strings.Builder
	out.WriteString("| | key | |\n|---|---|---|\n")
	for _, field := range root.Fields {
		if strings.HasPrefix(field.Name, "__") {
			continue
		}
		key := "no"
		if field.Directives.ForName("authenticated") != nil {
			key = "yes"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", field.Name, key, strings.Join(strings.Fields(field.Description), " "))
	}
	return out.String()
}
