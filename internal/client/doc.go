// Package client implements the commands of an agent. They call a server over its
// public GraphQL API and print the response as a table or as JSON. The package
// does not open a database and does not import the server.
package client
