package market

import (
	"context"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/models"
)

// AgentChanges are changes to an agent. A nil field stays as it is, an empty string
// clears an optional one.
type AgentChanges struct {
	Name         *string
	Description  *string
	Capabilities *[]string
	PricePerTask *models.Credits
	EndpointURL  *string
	SystemPrompt *string
}

// UpdateAgent changes the caller's agent. INVALID_INPUT for an invalid field.
func (m *Market) UpdateAgent(ctx context.Context, actor auth.Actor, in AgentChanges) (models.Agent, error) {
	replay, err := m.checkUnlessReplayed(ctx, actor.AgentID, func() error { return m.checkEndpoint(ctx, in) })
	if err != nil {
		return models.Agent{}, err
	}
	return idempotency.Run(ctx, m.idempotency, actor.AgentID, "updateAgent", in, func(tx *database.Tx) (models.Agent, error) {
		var agent models.Agent
		if replay {
			return agent, idempotency.KeyExpiredError()
		}
		if err := tx.ForUpdate().Take(&agent, "id = ?", actor.AgentID).Error; err != nil {
			return agent, err
		}
		if err := m.applyChanges(&agent, in); err != nil {
			return agent, err
		}
		if in.EndpointURL != nil && agent.EndpointURL != "" {
			if _, err := m.deps.Webhooks.EnsureSecret(tx, agent.ID); err != nil {
				return agent, err
			}
		}
		if fields := in.auditedFields(); fields != "" {
			if err := m.deps.Audit.Record(ctx, tx, actor.AgentID, models.AuditAgentChanged, fields); err != nil {
				return agent, err
			}
		}
		err := tx.Model(&models.Agent{ID: agent.ID}).
			Select("Name", "Description", "Capabilities", "PricePerTask", "EndpointURL", "SystemPrompt").Updates(&agent).Error
		if err == nil && (in.Name != nil || in.Description != nil) {
			err = indexWords(tx, &agent)
		}
		if err != nil || in.Capabilities == nil {
			return agent, err
		}
		return agent, setCapabilities(tx, &agent)
	})
}

// checkEndpoint checks the host of a new endpoint.
func (m *Market) checkEndpoint(ctx context.Context, in AgentChanges) error {
	if in.EndpointURL == nil || *in.EndpointURL == "" {
		return nil
	}
	return m.deps.CheckHost(ctx, "endpointUrl", *in.EndpointURL)
}

// auditedFields returns the names of the changed fields that the audit log records.
func (in *AgentChanges) auditedFields() string {
	switch {
	case in.EndpointURL != nil && in.SystemPrompt != nil:
		return "endpointUrl systemPrompt"
	case in.EndpointURL != nil:
		return "endpointUrl"
	case in.SystemPrompt != nil:
		return "systemPrompt"
	default:
		return ""
	}
}

// applyChanges applies the changes to agent and validates the result.
func (m *Market) applyChanges(agent *models.Agent, in AgentChanges) (err error) {
	setIfGiven(&agent.Name, in.Name)
	setIfGiven(&agent.Description, in.Description)
	setIfGiven(&agent.PricePerTask, in.PricePerTask)
	setIfGiven(&agent.EndpointURL, in.EndpointURL)
	setIfGiven(&agent.SystemPrompt, in.SystemPrompt)
	if in.Capabilities != nil {
		if agent.Capabilities, err = NormalizeCapabilities("capabilities", *in.Capabilities, maxCapabilities); err != nil {
			return err
		}
	}
	return m.checkAgent(agent)
}

// lockAgent serializes the caller's changes to its own agent. UNAUTHENTICATED if the
// caller's key was revoked while it waited for the lock.
func (m *Market) lockAgent(tx *database.Tx, actor auth.Actor) error {
	var id string
	if err := tx.QueryRowForUpdate("SELECT id FROM agents WHERE id = ?", []any{actor.AgentID}, &id); err != nil {
		return err
	}
	return m.deps.Keys.RequireActive(tx, actor)
}

func setIfGiven[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}
