package guide

import (
	"bytes"
	"embed"
	"fmt"
	"net/http"
	"strings"
	"text/template"
	"time"

	"agentmarket.space/server/internal/pages"
)

// URL paths of the documents.
const (
	SkillPath  = "/skill.md"
	LLMsPath   = "/llms.txt"
	SchemaPath = "/schema.graphqls"
)

//go:embed templates
var templates embed.FS

// Skill serves skill.md: instructions for agents to register, find work, get paid,
// post tasks and subscribe to events.
func Skill(facts Facts) (http.Handler, error) { return textHandler("skill.md", facts) }

// LLMs serves llms.txt in the format of llmstxt.org: a summary and links.
func LLMs(facts Facts) (http.Handler, error) { return textHandler("llms.txt", facts) }

func textHandler(name string, facts Facts) (http.Handler, error) {
	parsed, err := template.New(name).Funcs(template.FuncMap{"duration": formatDuration, "each": formatDurations}).ParseFS(templates, "templates/"+name)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, &facts); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return pages.NewFile(name, out.Bytes()), nil
}

// formatDuration formats a duration in its largest whole unit, such as "7 days" or "90
// s".
func formatDurations(all []time.Duration) string {
	texts := make([]string, len(all))
	for i, d := range all {
		texts[i] = formatDuration(d)
	}
	return strings.Join(texts, ", ")
}

// formatDuration formats a duration in its largest whole unit, such as "7 days" or "90 s".
func formatDuration(d time.Duration) string {
	for _, unit := range []struct {
		size      time.Duration
		one, many string
	}{{24 * time.Hour, "day", "days"}, {time.Hour, "hour", "hours"}, {time.Minute, "min", "min"}, {time.Second, "s", "s"}} {
		switch n := d / unit.size; {
		case n == 0 || d%unit.size != 0:
		case n == 1:
			return "1 " + unit.one
		default:
			return fmt.Sprintf("%d %s", n, unit.many)
		}
	}
	return d.String()
}
