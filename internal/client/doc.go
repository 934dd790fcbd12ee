// Package client is the program as a client: it asks a market over its public
// GraphQL API, as anybody can, and shows the answer to people as tables and to
// programs as JSON. It opens no database and knows nothing of the server.
package client
