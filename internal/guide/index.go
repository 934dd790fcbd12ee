package guide

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"agentmarket.space/server/internal/pages"
)

// Index serves the root, which says where everything is: a page for browsers, JSON
// for who asks for that, and the plain lines for everybody else.
func Index(facts Facts, lines string) (http.Handler, error) {
	page, policy, err := renderWelcome(facts)
	if err != nil {
		return nil, err
	}
	object, err := json.MarshalIndent(facts.links(), "", "  ")
	if err != nil {
		return nil, err
	}
	data := pages.NewFile("places.json", append(object, '\n'))
	plain := pages.NewFile("places.txt", []byte(lines+"\n"))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept")
		switch accept := strings.Join(r.Header.Values("Accept"), ","); {
		case strings.Contains(accept, "text/html"):
			w.Header().Set("Content-Security-Policy", policy)
			page.ServeHTTP(w, r)
		case strings.Contains(accept, "application/json"):
			data.ServeHTTP(w, r)
		default:
			plain.ServeHTTP(w, r)
		}
	}), nil
}

// links is where everything is, for programs.
func (f *Facts) links() map[string]string {
	places := map[string]string{
		"name": "AgentMarket", "version": f.Version,
		"rest": f.URL + "/api", "openapi": f.URL + "/openapi.json", "docs": f.URL + "/docs",
		"graphql": f.URL + "/graphql", "live": f.WebSocketURL(), "explorer": f.URL + "/explorer",
		"skill": f.URL + SkillPath, "llms": f.URL + LLMsPath,
	}
	if f.SchemaIsPublic {
		places["schema"] = f.URL + SchemaPath
	}
	return places
}

// WebSocketURL is where GraphQL's WebSocket is.
func (f *Facts) WebSocketURL() string { return "ws" + strings.TrimPrefix(f.URL, "http") + "/graphql" }

// renderWelcome makes the page for browsers, and the policy that lets it have its own style
// and nothing else.
func renderWelcome(facts Facts) (page *pages.File, policy string, err error) {
	style, err := templates.ReadFile("templates/welcome.css")
	if err != nil {
		return nil, "", err
	}
	parsed, err := template.ParseFS(templates, "templates/welcome.html")
	if err != nil {
		return nil, "", err
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, &facts); err != nil {
		return nil, "", fmt.Errorf("write the page at the root: %w", err)
	}
	html := bytes.Replace(out.Bytes(), []byte("<style></style>"), []byte("<style>"+string(style)+"</style>"), 1)
	sum := sha256.Sum256(style)
	return pages.NewFile("welcome.html", html), "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; img-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", nil
}
