package claims

import "encoding/json"

// savedKeys is the last good answer of an endpoint in a snapshot.
type savedKeys struct {
	URL     string          `json:"url"`      // as configured
	JWKSURI string          `json:"jwks_uri"` // where the keys came from
	JWKS    json.RawMessage `json:"jwks"`
}

// snapshot renders the keys at hand. They are public keys: it holds no secret.
func (rs *remotes) snapshot() []byte {
	saved := []savedKeys{}
	for _, r := range rs.list {
		set := r.keys.Load()
		if set == nil {
			continue
		}
		r.mu.Lock()
		jwksURL := r.jwksURL
		r.mu.Unlock()
		saved = append(saved, savedKeys{URL: r.url, JWKSURI: jwksURL, JWKS: set.jwks})
	}
	data, err := json.Marshal(saved)
	if err != nil {
		panic(err) // strings and valid JSON only
	}
	return data
}

// restore takes over the keys of a snapshot. What does not fit is left out: the
// configuration may have changed since, and keys can always be fetched. They
// count as stale, so that their first use has them fetched again.
func (rs *remotes) restore(snapshot []byte) {
	var saved []savedKeys
	if json.Unmarshal(snapshot, &saved) != nil {
		return
	}
	for _, s := range saved {
		for _, r := range rs.list {
			if r.url != s.URL || !r.discovery && s.JWKSURI != s.URL {
				continue
			}
			if set, err := parseJWKS(s.JWKS); err == nil {
				r.keys.Store(set)
				r.jwksURL = s.JWKSURI
			}
		}
	}
}
