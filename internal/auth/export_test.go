package auth

// Cached returns how many keys are remembered.
func (k *Keys) Cached() int { return k.cache.Len() }

// Purge forgets what was remembered, as a full cache does bit by bit.
func (k *Keys) Purge() { k.cache.Purge() }

// RememberLate does what a slow Find does at its end, when the key was read
// after so many revocations.
func (k *Keys) RememberLate(actor Actor, revocations int64) { k.remember(actor, revocations) }

// Revocations returns how many keys were revoked so far.
func (k *Keys) Revocations() int64 { return k.revoked() }
