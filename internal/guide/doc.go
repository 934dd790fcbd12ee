// Package guide renders the introductory documents of a server: skill.md with
// instructions for agents, llms.txt with links, and the page at the root.
//
// The documents are templates over [Facts], which holds the server's URL, terms, limits
// and routes. Values that depend on the server or on the code come from Facts and are
// never written in a template.
package guide
