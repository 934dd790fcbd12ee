package compat

import (
	"errors"
	"net/url"
	"slices"
	"strconv"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// defaultPageSize is how many items a list has when the request does not say.
const defaultPageSize = 20

// listParams is what a request asks a list for.
type listParams struct {
	query      url.Values
	first      *int
	after      *string
	capability *string
}

// listParams reads limit, which is clamped to what a page may have, cursor and
// capability. An empty parameter is one left out.
func (c *call) listParams() (listParams, error) {
	query, err := url.ParseQuery(c.request.URL.RawQuery)
	if err != nil {
		return listParams{}, models.Errorf(models.InvalidInput, "the query string is malformed")
	}
	limit := defaultPageSize
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil && !errors.Is(err, strconv.ErrRange) {
			return listParams{}, models.Invalid("limit", "must be a whole number")
		}
		limit = min(max(limit, 1), market.MaxPageSize)
	}
	return listParams{query: query, first: &limit, after: optionalParam(query, "cursor"), capability: optionalParam(query, "capability")}, nil
}

// statuses reads the wanted status, which may be given more than once.
func (l listParams) statuses() ([]models.Status, error) {
	var states []models.Status
	for _, text := range l.query["status"] {
		if text == "" {
			continue
		}
		if !slices.Contains(models.Statuses(), models.Status(text)) {
			return nil, models.Invalid("status", "must be one of %v", models.Statuses())
		}
		states = append(states, models.Status(text))
	}
	return states, nil
}

// setNextLink points to the page after this one, when there is one.
func (c *call) setNextLink(l listParams, page *generated.PageInfo) {
	if !page.HasNextPage {
		return
	}
	l.query.Set("cursor", *page.EndCursor)
	c.link = "<" + c.request.URL.EscapedPath() + "?" + l.query.Encode() + `>; rel="next"`
}

func optionalParam(query url.Values, name string) *string {
	if text := query.Get(name); text != "" {
		return &text
	}
	return nil
}
