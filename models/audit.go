package models

// AuditAction is a security-related action.
type AuditAction string

// The actions in the audit log. Rejections of the same kind are counted in one entry.
const (
	AuditAgentRegistered     AuditAction = "agent.registered"
	AuditAgentChanged        AuditAction = "agent.changed" // object: the changed fields that make the server send requests
	AuditKeyRotated          AuditAction = "key.rotated"
	AuditKeysRevoked         AuditAction = "keys.revoked" // by the operator
	AuditKeyRefused          AuditAction = "key.refused"
	AuditWebhookSet          AuditAction = "webhook.set" // object: the host of the URL
	AuditWebhookRemoved      AuditAction = "webhook.removed"
	AuditWebhookResumed      AuditAction = "webhook.resumed"
	AuditSecretRotated       AuditAction = "secret.rotated"
	AuditDeliveryRepeated    AuditAction = "delivery.repeated" // object: the delivery, or the last one of a page
	AuditSecretsGivenUp      AuditAction = "secrets.given_up"
	AuditSecretsReencrypted  AuditAction = "secrets.reencrypted" //nolint:gosec // the name of an action
	AuditOperatorRefused     AuditAction = "operator.refused"
	AuditRead                AuditAction = "audit.read"
	AuditRegistrationRefused AuditAction = "registration.refused"
)

// OperatorActor is the actor of requests with the operator's key and of commands on
// the server.
const OperatorActor = "operator"

// AuditOK is the outcome of a successful action. Other outcomes are error codes.
const AuditOK = "OK"

// AuditEntry is an entry of the audit log.
type AuditEntry struct {
	Seq       int64       `gorm:"primaryKey" json:"seq"`
	CreatedAt Time        `json:"at"`
	Actor     string      `json:"actor"` // an agent's ID, [OperatorActor], or empty
	Action    AuditAction `json:"action"`
	Object    string      `json:"object"`     // ID of the object of the action
	Address   string      `json:"address"`    // of the client, or its network for a rejection
	RequestID string      `json:"request_id"` // empty for rejections
	Outcome   string      `json:"outcome"`
	Count     int64       `json:"times"` // number of actions since the previous entry
}
