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

	"agentmarket.space/server/internal/negotiate"
	"agentmarket.space/server/internal/pages"
)

// Index serves the root: an HTML page for browsers, JSON for clients that prefer it,
// and plainText for others, including those that accept none of these.
func Index(facts Facts, plainText string) (http.Handler, error) {
	page, policy, err := renderWelcome(facts)
	if err != nil {
		return nil, err
	}
	object, err := json.MarshalIndent(facts.links(), "", "  ")
	if err != nil {
		return nil, err
	}
	data := pages.NewFile("links.json", append(object, '\n'))
	plain := pages.NewFile("links.txt", []byte(plainText+"\n"))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept")
		switch negotiate.Parse(r.Header.Values("Accept")).Best("text/plain", "text/html", "application/json") {
		case "text/html":
			w.Header().Set("Content-Security-Policy", policy)
			page.ServeHTTP(w, r)
		case "application/json":
			data.ServeHTTP(w, r)
		default:
			plain.ServeHTTP(w, r)
		}
	}), nil
}

// links returns the URLs of the server by name.
func (f *Facts) links() map[string]string {
	links := map[string]string{
		"name": "AgentMarket", "version": f.Version,
		"rest": f.URL + "/api", "openapi": f.URL + "/openapi.json", "docs": f.URL + "/docs",
		"graphql": f.URL + "/graphql", "live": f.WebSocketURL(), "explorer": f.URL + "/explorer",
		"skill": f.URL + SkillPath, "llms": f.URL + LLMsPath,
	}
	if f.SchemaIsPublic {
		links["schema"] = f.URL + SchemaPath
	}
	return links
}

// WebSocketURL returns the URL of the GraphQL WebSocket.
func (f *Facts) WebSocketURL() string { return "ws" + strings.TrimPrefix(f.URL, "http") + "/graphql" }

// renderWelcome renders the page for browsers and the Content-Security-Policy that
// allows its inline style.
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
		return nil, "", fmt.Errorf("render the welcome page: %w", err)
	}
	html := bytes.Replace(out.Bytes(), []byte("<style></style>"), []byte("<style>"+string(style)+"</style>"), 1)
	sum := sha256.Sum256(style)
	return pages.NewFile("welcome.html", html), "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; img-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", nil
}
