package auth

// CacheLen returns the number of cached keys.
func (k *Keys) CacheLen() int { return k.cache.Len() }

// PurgeCache removes all cached keys.
func (k *Keys) PurgeCache() { k.cache.Purge() }

// CacheActor is the last step of an Authenticate call that read the key when the
// revocation count was revocations.
func (k *Keys) CacheActor(actor Actor, revocations int64) { k.cacheActor(actor, revocations) }

// RevocationCount returns the number of revoked keys since the start.
func (k *Keys) RevocationCount() int64 { return k.revocationCount() }
