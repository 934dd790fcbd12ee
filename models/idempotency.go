package models

// IdempotencyKey is a client's key for one request. Response is the encrypted response,
// or nil while the request is in progress.
type IdempotencyKey struct {
	Scope       string `gorm:"primaryKey"`
	Key         string `gorm:"primaryKey"` // the SHA-256 of the client's key in hex
	Fingerprint []byte
	Response    []byte
	TaskID      *string
	CreatedAt   Time
}
