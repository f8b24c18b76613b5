package claims

import "encoding/json"

// savedKeys is the last good answer of an endpoint in a snapshot, with where it
// came from.
type savedKeys struct {
	URL       string          `json:"url"`       // as configured
	Discovery bool            `json:"discovery"` // URL is an issuer's identifier
	CAs       []string        `json:"cas"`       // fingerprints; none: the system's
	JWKSURI   string          `json:"jwks_uri"`  // where the keys came from
	JWKS      json.RawMessage `json:"jwks"`      // the usable keys
}

// snapshot renders the keys at hand, nil if there are none. They are public
// keys: it holds no secret.
func (rs *remotes) snapshot() []byte {
	var saved []savedKeys
	for _, r := range rs.list {
		set := r.keys.Load()
		if set == nil {
			continue
		}
		r.mu.Lock()
		jwksURL := r.jwksURL
		r.mu.Unlock()
		saved = append(saved, savedKeys{URL: r.url, Discovery: r.discovery, CAs: r.cas, JWKSURI: jwksURL, JWKS: set.jwks})
	}
	if saved == nil {
		return nil
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
			if !s.isOf(r) {
				continue
			}
			if set, err := parseJWKS(s.JWKS); err == nil {
				r.keys.Store(set)
				if r.discovery {
					r.jwksURL = s.JWKSURI
				}
			}
		}
	}
}

// isOf reports whether the endpoint's keys are these, as far as can be known
// without asking it: they come from there, over a connection that is trusted
// still. What only a CA vouched for that is not trusted any more may be
// somebody else's.
func (s *savedKeys) isOf(r *remote) bool {
	return s.URL == r.url && s.Discovery == r.discovery && within(s.CAs, r.cas)
}
