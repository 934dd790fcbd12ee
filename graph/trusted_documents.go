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

// Error codes for a document that is not trusted, by id and by text. They are those of
// Apollo's router. A client does not retry with the text after them, as it would after
// PERSISTED_QUERY_NOT_FOUND.
const (
	codeIDNotListed   = "PERSISTED_QUERY_NOT_IN_LIST"
	codeTextNotListed = "QUERY_NOT_IN_SAFELIST"
)

// TrustedDocuments is a list of documents. A server with a list rejects all others, for
// every caller and transport.
type TrustedDocuments struct {
	byID  map[string]string
	texts map[string]bool
}

// ReadTrustedDocuments reads a manifest: a JSON object that maps ids to documents, as
// Relay and GraphQL Code Generator write it, or an operation list of Apollo's tools. An id
// of 64 hex digits must be the SHA-256 of the document; other ids may be any text.
func ReadTrustedDocuments(path string) (*TrustedDocuments, error) {
	raw, err := os.ReadFile(path) //nolint:gosec // the path is the operator's
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
			return nil, fmt.Errorf("%s: document %q %w", path, id, err)
		}
		if other, exists := t.byID[canonicalID(id)]; exists && other != text {
			return nil, fmt.Errorf("%s: two documents have the id %q", path, id)
		}
		t.byID[canonicalID(id)], t.texts[text] = text, true
	}
	return t, nil
}

// parseManifest returns the documents of a manifest by id.
func parseManifest(raw []byte) (map[string]string, error) {
	var apollo struct {
		Format     string
		Operations []struct{ ID, Body string }
	}
	var documents map[string]string
	if json.Unmarshal(raw, &apollo) == nil && apollo.Format == "apollo-persisted-query-manifest" {
		documents = map[string]string{}
		for _, operation := range apollo.Operations {
			if other, exists := documents[operation.ID]; exists && other != operation.Body {
				return nil, fmt.Errorf("two documents have the id %q", operation.ID)
			}
			documents[operation.ID] = operation.Body
		}
	} else if err := json.Unmarshal(raw, &documents); err != nil {
		return nil, errors.New("want a JSON object that maps ids to documents")
	}
	if len(documents) == 0 {
		return nil, errors.New("the manifest has no documents")
	}
	return documents, nil
}

// validateDocument returns an error for a document that could never run.
func validateDocument(id, text string) error {
	sum := sha256.Sum256([]byte(text))
	if raw, err := hex.DecodeString(canonicalID(id)); err == nil && len(raw) == len(sum) && string(raw) != string(sum[:]) {
		return errors.New("does not have the SHA-256 of its id")
	}
	if _, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: text}, transport.MaxTokens); err != nil {
		return fmt.Errorf("cannot be parsed: %w", err)
	}
	return nil
}

// canonicalID returns the lower-case digest of an id that is a SHA-256, with or without
// the prefix sha256:, and any other id unchanged.
func canonicalID(id string) string {
	digest := strings.TrimPrefix(id, "sha256:")
	if raw, err := hex.DecodeString(digest); err == nil && len(raw) == sha256.Size {
		return strings.ToLower(digest)
	}
	return id
}

// ExtensionName implements graphql.HandlerExtension.
func (*TrustedDocuments) ExtensionName() string { return "TrustedDocuments" }

// Validate implements graphql.HandlerExtension.
func (*TrustedDocuments) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationParameters sets the document of a request that has only an id. It
// rejects a document that is not on the list.
func (t *TrustedDocuments) MutateOperationParameters(_ context.Context, request *graphql.RawParams) *gqlerror.Error {
	if request.Query != "" {
		if !t.texts[request.Query] {
			return untrustedError(codeTextNotListed, "the document is not on the list of documents that this server runs")
		}
		return nil
	}
	persisted, _ := request.Extensions["persistedQuery"].(map[string]any)
	id, _ := persisted["sha256Hash"].(string)
	text, listed := t.byID[canonicalID(id)]
	if !listed {
		return untrustedError(codeIDNotListed, "no document on the list of this server has this id")
	}
	request.Query = text
	return nil
}

func untrustedError(code, message string) *gqlerror.Error {
	return &gqlerror.Error{Message: message, Extensions: map[string]any{"code": code}}
}
