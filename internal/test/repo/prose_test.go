package repo

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// proseRule is a row of testdata/prose.txt.
type proseRule struct {
	pattern, allowed *regexp.Regexp // allowed is nil if every match is an error
	instead          string
}

var (
	// codePattern matches code blocks, inline code, the targets of links, and URLs.
	codePattern        = regexp.MustCompile("(?s)```.*?```|`[^`]*`|\\]\\([^)]*\\)|https?://\\S+")
	directivePattern   = regexp.MustCompile(`^//[a-z]+:`)
	descriptionPattern = regexp.MustCompile(`(?s)""".*?"""|"[^"\n]*"|#[^\n]*`)
)

// TestProse checks Go comments, Markdown, descriptions of the schema and help texts for
// the words and constructions of testdata/prose.txt.
func TestProse(t *testing.T) {
	t.Parallel()
	rules := proseRules(t)
	visit := func(name string) error {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, p := range proseOf(t, name, string(text)) {
			for _, problem := range p.check(rules) {
				t.Errorf("%s:%s", name, problem)
			}
		}
		return nil
	}
	walkModule(t, visit)
	walkFolder(t, "bench", visit)
}

func TestProse_findsErrors(t *testing.T) {
	t.Parallel()
	rules := proseRules(t)
	for text, want := range map[string]int{
		"The caller waits for a response.":                0,
		"Whoever asks\nis told of the event.":             2,
		"There is no cache. It is no longer used.":        0,
		"The body is no JSON object.":                     1,
		"It retries so long\nas the context is not done.": 0,
		"It waits so long.":                               1,
		"Call `beside` and `410 Gone`.":                   0,
		"```\nbeside\n```\nIt runs beside\nthe others.":   1,
		"The server answers 410 Gone.":                    0,
	} {
		if problems := proseOf(t, "page.md", text)[0].check(rules); len(problems) != want {
			t.Errorf("%q: got %q, want %d problems", text, problems, want)
		}
	}
	const source = "package a\n\n// F runs beside G.\nfunc F() {}\n\ntype c struct {\n\tA string `help:\"Made anew.\"`\n}\n"
	var problems []string
	for _, p := range proseOf(t, "a.go", source) {
		problems = append(problems, p.check(rules)...)
	}
	if len(problems) != 2 || !strings.HasPrefix(problems[0], "3: ") || !strings.HasPrefix(problems[1], "7: ") {
		t.Errorf("got %q, want problems in lines 3 and 7", problems)
	}
}

// proseRules reads testdata/prose.txt.
func proseRules(t *testing.T) (rules []proseRule) {
	t.Helper()
	text, err := os.ReadFile("internal/test/repo/testdata/prose.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		columns := strings.Split(line, "\t")
		if len(columns) < 2 {
			t.Fatalf("want a pattern and a replacement in %q", line)
		}
		rule := proseRule{pattern: regexp.MustCompile(`\b(?:` + strings.ReplaceAll(columns[0], " ", `\s+`) + `)\b`), instead: columns[1]}
		if len(columns) > 2 {
			rule.allowed = regexp.MustCompile(strings.ReplaceAll(columns[2], " ", `\s+`))
		}
		rules = append(rules, rule)
	}
	return rules
}

// prose is consecutive text of a file, without code. Line is the number of its first line.
type prose struct {
	line int
	text string
}

// proseOf returns the prose of a file.
func proseOf(t *testing.T, name, text string) []prose {
	t.Helper()
	switch path.Ext(name) {
	case ".go":
		return proseOfGo(t, name, text)
	case ".md":
		return []prose{{1, withoutCode(text)}}
	case ".graphqls":
		var found []prose
		for _, span := range descriptionPattern.FindAllStringIndex(text, -1) {
			found = append(found, prose{1 + strings.Count(text[:span[0]], "\n"), withoutCode(text[span[0]:span[1]])})
		}
		return found
	default:
		return nil
	}
}

// proseOfGo returns the comments and the help texts in the struct tags of a Go file that is
// not generated. Directives are left out.
func proseOfGo(t *testing.T, name, text string) (found []prose) {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if ast.IsGenerated(file) {
		return nil
	}
	for _, group := range file.Comments {
		var lines []string
		for _, comment := range group.List {
			if directivePattern.MatchString(comment.Text) {
				lines = append(lines, "")
				continue
			}
			lines = append(lines, strings.TrimPrefix(comment.Text, "//"))
		}
		found = append(found, prose{files.Position(group.Pos()).Line, withoutCode(strings.Join(lines, "\n"))})
	}
	ast.Inspect(file, func(node ast.Node) bool {
		field, ok := node.(*ast.Field)
		if !ok || field.Tag == nil {
			return true
		}
		tag, err := strconv.Unquote(field.Tag.Value)
		if help := reflect.StructTag(tag).Get("help"); err == nil && help != "" {
			found = append(found, prose{files.Position(field.Tag.Pos()).Line, withoutCode(help)})
		}
		return true
	})
	return found
}

// withoutCode replaces code with a backquote and its line breaks, in lower case.
func withoutCode(text string) string {
	return codePattern.ReplaceAllStringFunc(strings.ToLower(text), func(code string) string {
		return "`" + strings.Repeat("\n", strings.Count(code, "\n"))
	})
}

// check returns the matches of the rules, each with its line.
func (p prose) check(rules []proseRule) (problems []string) {
	for _, rule := range rules {
		for _, span := range rule.pattern.FindAllStringIndex(p.text, -1) {
			match := p.text[span[0]:span[1]]
			if rule.allowed != nil && rule.allowed.MatchString(match) {
				continue
			}
			line := p.line + strings.Count(p.text[:span[0]], "\n")
			problems = append(problems, fmt.Sprintf("%d: %q: write instead: %s", line, strings.Join(strings.Fields(match), " "), rule.instead))
		}
	}
	return problems
}
