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

// standardPage is how many items a list has when the request does not say.
const standardPage = 20

// listing is what a request asks a list for.
type listing struct {
	query      url.Values
	first      *int
	after      *string
	capability *string
}

// listing reads limit, which is clamped to what a page may have, cursor and
// capability. An empty parameter is one left out.
func (c *call) listing() (listing, error) {
	query, err := url.ParseQuery(c.request.URL.RawQuery)
	if err != nil {
		return listing{}, models.Errorf(models.InvalidInput, "the query string is malformed")
	}
	limit := standardPage
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil && !errors.Is(err, strconv.ErrRange) {
			return listing{}, models.Invalid("limit", "must be a whole number")
		}
		limit = min(max(limit, 1), market.MaxPage)
	}
	return listing{query: query, first: &limit, after: given(query, "cursor"), capability: given(query, "capability")}, nil
}

// states reads the wanted status, which may be given more than once.
func (l listing) states() ([]models.Status, error) {
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

// next points to the page after this one, when there is one.
func (c *call) next(l listing, page *generated.PageInfo) {
	if !page.HasNextPage {
		return
	}
	l.query.Set("cursor", *page.EndCursor)
	c.link = "<" + c.request.URL.EscapedPath() + "?" + l.query.Encode() + `>; rel="next"`
}

func given(query url.Values, name string) *string {
	if text := query.Get(name); text != "" {
		return &text
	}
	return nil
}
