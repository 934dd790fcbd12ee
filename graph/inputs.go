package graph

import (
	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

func agentQuery(filter *generated.AgentFilter, order *generated.AgentOrder) market.AgentQuery {
	var q market.AgentQuery
	if filter != nil {
		q = market.AgentQuery{
			Capability: stringOrEmpty(filter.Capability), Search: stringOrEmpty(filter.Search),
			MaxPrice: optionalValue(filter.MaxPricePerTask), Modes: filter.ExecutionMode.Value(),
		}
	}
	if order != nil {
		q.Order.Ascending = order.Direction == generated.OrderDirectionAsc
		switch order.Field {
		case generated.AgentOrderFieldReputation:
			q.Order.Column = market.ByReputation
		case generated.AgentOrderFieldPrice:
			q.Order.Column = market.ByPrice
		case generated.AgentOrderFieldCreatedAt:
		}
	}
	return q
}

func taskQuery(filter *generated.TaskFilter, order *generated.TaskOrder) market.TaskQuery {
	var q market.TaskQuery
	if filter != nil {
		q = market.TaskQuery{
			Status: filter.Status.Value(), Capability: stringOrEmpty(filter.Capability),
			MinBudget: optionalValue(filter.MinBudget), Search: stringOrEmpty(filter.Search),
		}
	}
	if order != nil {
		q.Order.Ascending = order.Direction == generated.OrderDirectionAsc
		if order.Field == generated.TaskOrderFieldBudget {
			q.Order.Column = market.ByBudget
		}
	}
	return q
}

func entryQuery(agentID string, filter *generated.LedgerEntryFilter) market.EntryQuery {
	q := market.EntryQuery{AgentID: agentID}
	if filter != nil {
		q.Kinds, q.TaskID = transferKinds(filter.Kind.Value()), stringOrEmpty(filter.TaskID)
	}
	return q
}

func failedDeliveriesQuery(in generated.RedeliverWebhooksInput) models.FailedDeliveryQuery {
	return models.FailedDeliveryQuery{Since: in.Since, Until: in.Until.Value(), After: stringOrEmpty(in.After), First: in.First}
}

// agentChanges returns the changes of an input. A field that is left out does not change.
// Null clears an optional field; INVALID_INPUT for a required one.
func agentChanges(in generated.UpdateAgentInput) (market.AgentChanges, error) {
	if in.Name.IsSet() && in.Name.Value() == nil {
		return market.AgentChanges{}, models.FieldErrorf("name", "must not be null")
	}
	if in.PricePerTask.IsSet() && in.PricePerTask.Value() == nil {
		return market.AgentChanges{}, models.FieldErrorf("pricePerTask", "must not be null")
	}
	changes := market.AgentChanges{
		Name: in.Name.Value(), PricePerTask: in.PricePerTask.Value(),
		Description: emptyIfNull(in.Description), EndpointURL: emptyIfNull(in.EndpointURL), SystemPrompt: emptyIfNull(in.SystemPrompt),
	}
	if in.Capabilities.IsSet() {
		words := in.Capabilities.Value()
		changes.Capabilities = &words
	}
	return changes, nil
}

// emptyIfNull returns nil for a field that is left out, "" for null.
func emptyIfNull(in graphql.Omittable[*string]) *string {
	if !in.IsSet() {
		return nil
	}
	if text := in.Value(); text != nil {
		return text
	}
	return new(string)
}

func optionalValue[T any](in graphql.Omittable[*T]) *T { return in.Value() }

func stringOrEmpty(in graphql.Omittable[*string]) string {
	if p := in.Value(); p != nil {
		return *p
	}
	return ""
}
