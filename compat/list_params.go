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

// defaultPageSize is the number of items of a list without a limit parameter.
const defaultPageSize = 20

// listParams are the query parameters of a list.
type listParams struct {
	query      url.Values
	first      *int
	after      *string
	capability *string
}

// listParams parses limit, which is clamped to 1..market.MaxPageSize, cursor and
// capability. An empty parameter is the same as none.
func (c *call) listParams() (listParams, error) {
	query, err := url.ParseQuery(c.request.URL.RawQuery)
	if err != nil {
		return listParams{}, models.Errorf(models.InvalidInput, "the query string is malformed")
	}
	limit := defaultPageSize
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil && !errors.Is(err, strconv.ErrRange) {
			return listParams{}, models.FieldErrorf("limit", "must be a whole number, not %q", text)
		}
		limit = min(max(limit, 1), market.MaxPageSize)
	}
	return listParams{query: query, first: &limit, after: optionalParam(query, "cursor"), capability: optionalParam(query, "capability")}, nil
}

// statuses parses the status parameters.
func (p listParams) statuses() ([]models.Status, error) {
	var statuses []models.Status
	for _, text := range p.query["status"] {
		if text == "" {
			continue
		}
		if !slices.Contains(models.Statuses(), models.Status(text)) {
			return nil, models.FieldErrorf("status", "must be one of %v", models.Statuses())
		}
		statuses = append(statuses, models.Status(text))
	}
	return statuses, nil
}

// setNextLink sets the Link to the next page if there is one.
func (c *call) setNextLink(params listParams, page *generated.PageInfo) {
	if !page.HasNextPage {
		return
	}
	params.query.Set("cursor", *page.EndCursor)
	c.link = "<" + c.basePath + c.request.URL.EscapedPath() + "?" + params.query.Encode() + `>; rel="next"`
}

func optionalParam(query url.Values, name string) *string {
	if text := query.Get(name); text != "" {
		return &text
	}
	return nil
}
