package auth

// CacheLen returns how many keys are remembered.
func (k *Keys) CacheLen() int { return k.cache.Len() }

// PurgeCache forgets what was remembered, as a full cache does bit by bit.
func (k *Keys) PurgeCache() { k.cache.Purge() }

// CacheLate does what a slow Find does at its end, when the key was read
// after so many revocations.
func (k *Keys) CacheLate(actor Actor, revocations int64) { k.cacheActor(actor, revocations) }

// RevocationCount returns how many keys were revoked so far.
func (k *Keys) RevocationCount() int64 { return k.revocationCount() }
