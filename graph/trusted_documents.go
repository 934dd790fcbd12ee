package graph

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"

	"agentmarket.space/server/graph/transport"
)

// Codes of a document that is not on the list, by its id and by its text. They
// are none that has a client send the text after the id, and those that Apollo's
// router uses.
const (
	codeIDNotListed   = "PERSISTED_QUERY_NOT_IN_LIST"
	codeTextNotListed = "QUERY_NOT_IN_SAFELIST"
)

// TrustedDocuments is the documents that a server runs when it runs no others, whoever
// asks and over whichever transport.
type TrustedDocuments struct {
	byID  map[string]string
	texts map[string]bool
}

// ReadTrustedDocuments reads a manifest of documents: a JSON object of their texts by
// their ids, as Relay and GraphQL Code Generator write it, or the list of
// operations that Apollo's tools write. An id of 64 hex digits is the SHA-256 of
// the text, or the manifest is refused; others are taken as they are.
func ReadTrustedDocuments(path string) (*TrustedDocuments, error) {
	raw, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	documents, err := parseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t := &TrustedDocuments{byID: map[string]string{}, texts: map[string]bool{}}
	for id, text := range documents {
		if err := validateDocument(id, text); err != nil {
			return nil, fmt.Errorf("%s: the document %q %w", path, id, err)
		}
		if other, taken := t.byID[canonicalID(id)]; taken && other != text {
			return nil, fmt.Errorf("%s: two documents have the id %q", path, id)
		}
		t.byID[canonicalID(id)], t.texts[text] = text, true
	}
	return t, nil
}

// parseManifest returns the texts of a manifest by their ids.
func parseManifest(raw []byte) (map[string]string, error) {
	var apollo struct {
		Format     string
		Operations []struct{ ID, Body string }
	}
	var documents map[string]string
	if json.Unmarshal(raw, &apollo) == nil && apollo.Format == "apollo-persisted-query-manifest" {
		documents = map[string]string{}
		for _, operation := range apollo.Operations {
			if other, taken := documents[operation.ID]; taken && other != operation.Body {
				return nil, fmt.Errorf("two documents have the id %q", operation.ID)
			}
			documents[operation.ID] = operation.Body
		}
	} else if err := json.Unmarshal(raw, &documents); err != nil {
		return nil, errors.New("it is no JSON object of documents by their ids")
	}
	if len(documents) == 0 {
		return nil, errors.New("it has no document")
	}
	return documents, nil
}

// validateDocument refuses a document that could never run.
func validateDocument(id, text string) error {
	sum := sha256.Sum256([]byte(text))
	if raw, err := hex.DecodeString(canonicalID(id)); err == nil && len(raw) == len(sum) && string(raw) != string(sum[:]) {
		return errors.New("has another SHA-256")
	}
	if _, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: text}, transport.MaxTokens); err != nil {
		return fmt.Errorf("cannot be parsed: %w", err)
	}
	return nil
}

// canonicalID is the same for all ways to write an id: a SHA-256 has no upper case
// and no prefix, others are as they are.
func canonicalID(id string) string {
	digest := strings.TrimPrefix(id, "sha256:")
	if raw, err := hex.DecodeString(digest); err == nil && len(raw) == sha256.Size {
		return strings.ToLower(digest)
	}
	return id
}

// ExtensionName names the list for the executor.
func (*TrustedDocuments) ExtensionName() string { return "TrustedDocuments" }

// Validate accepts every schema.
func (*TrustedDocuments) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationParameters fills in the document of a request that gives its
// id, and refuses any that is not on the list.
func (t *TrustedDocuments) MutateOperationParameters(_ context.Context, request *graphql.RawParams) *gqlerror.Error {
	if request.Query != "" {
		if !t.texts[request.Query] {
			return untrustedError(codeTextNotListed, "this server runs the documents on its list only, and this is none of them")
		}
		return nil
	}
	asked, _ := request.Extensions["persistedQuery"].(map[string]any)
	id, _ := asked["sha256Hash"].(string)
	text, listed := t.byID[canonicalID(id)]
	if !listed {
		return untrustedError(codeIDNotListed, "there is no document with this id on the list of this server")
	}
	request.Query = text
	return nil
}

func untrustedError(code, message string) *gqlerror.Error {
	return &gqlerror.Error{Message: message, Extensions: map[string]any{"code": code}}
}
