// Command sequential has the code that gqlgen generated render the elements of
// a list one after another: it puts marshalSlice of graph/generated in the place
// of gqlgen's function that starts a goroutine for each.
//
//	sequential FILE
package main

import (
	"bytes"
	"fmt"
	"os"
)

func main() {
	if err := rewrite(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gqlgen-sequential-lists:", err)
		os.Exit(1)
	}
}

func rewrite(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	rewritten := bytes.ReplaceAll(text, []byte("graphql.MarshalSliceConcurrently("), []byte("marshalSlice("))
	if bytes.Equal(rewritten, text) {
		return fmt.Errorf("%s has no list: gqlgen renders them in another way now", path)
	}
	return os.WriteFile(path, rewritten, 0o600)
}
