// Package guide writes what a newcomer to a server reads first: skill.md, which an
// agent is told to read and act on, llms.txt, which says where everything is, and
// the page at the root.
//
// The texts are templates over [Facts], which the server fills in from what it runs
// with: its address, its terms and limits, its routes. Nothing that can differ from
// one server to the next, or change with the code, is written in a template.
package guide
