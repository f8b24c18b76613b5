package standin

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// The names of Google's servers.
const (
	GoogleTokens      = "oauth2.googleapis.com"
	GoogleCredentials = "iamcredentials.googleapis.com"
	GoogleDirectory   = "admin.googleapis.com"
)

// Google stands in for Google Workspace's Directory API, and for what gives access
// tokens for it to service accounts:
// https://developers.google.com/workspace/admin/directory/reference/rest/v1/groups/list,
// https://developers.google.com/identity/protocols/oauth2/service-account and
// https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/signJwt.
type Google struct {
	// Account is the service account to which domain-wide delegation was granted, and
	// Admin the administrator in whose name alone it gets anything.
	Account, Admin string
	// Groups are the addresses of the groups that users and groups are directly in.
	Groups map[string][]string
	// Schemas are the custom schemas of users, as JSON.
	Schemas map[string]map[string]json.RawMessage
	// Page is how many groups it lists at one time at most. Zero: 200.
	Page int

	mu     sync.Mutex
	issued int
	valid  map[string]bool // access tokens
}

// googleKey is that of the service account: made once, for it takes its time.
var googleKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })

// Serve has Google's servers answer on an Internet.
func (g *Google) Serve(n *Internet) {
	n.Serve(GoogleTokens, http.HandlerFunc(g.tokens))
	n.Serve(GoogleCredentials, http.HandlerFunc(g.sign))
	n.Serve(GoogleDirectory, http.HandlerFunc(g.directory))
}

// Key is the key of the service account as the console gives it.
func (g *Google) Key() string {
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(googleKey()))})
	return string(must(json.Marshal(object{
		"type": "service_account", "project_id": "example", "client_email": g.Account, "client_id": "1",
		"private_key_id": "key-1", "private_key": string(key), "token_uri": "https://" + GoogleTokens + "/token",
	})))
}

// Revoke makes all access tokens that were given invalid.
func (g *Google) Revoke() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.valid)
}

// Issued is how many access tokens were given.
func (g *Google) Issued() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.issued
}

func (g *Google) give(w http.ResponseWriter) {
	g.mu.Lock()
	g.issued++
	token := fmt.Sprintf("ya29.%d", g.issued)
	if g.valid == nil {
		g.valid = make(map[string]bool)
	}
	g.valid[token] = true
	g.mu.Unlock()
	write(w, http.StatusOK, object{"access_token": token, "expires_in": 3599, "token_type": "Bearer"})
}

func (g *Google) tokens(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/token" || r.ParseForm() != nil {
		write(w, http.StatusNotFound, object{"error": "not_found"})
		return
	}
	if grant := r.PostForm.Get("grant_type"); grant != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		write(w, http.StatusBadRequest, object{"error": "unsupported_grant_type", "error_description": "Invalid grant_type: " + grant})
		return
	}
	signed, err := jose.ParseSignedCompact(r.PostForm.Get("assertion"), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		write(w, http.StatusBadRequest, object{"error": "invalid_grant", "error_description": "Invalid assertion."})
		return
	}
	payload, err := signed.Verify(googleKey().Public())
	var claims struct {
		Iss, Sub, Aud, Scope string
		Exp, Iat             int64
	}
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Aud != "https://"+GoogleTokens+"/token" || claims.Exp-claims.Iat > 3600 {
		write(w, http.StatusBadRequest, object{"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
		return
	}
	delegated := claims.Sub == g.Admin && strings.Contains(claims.Scope, "admin.directory.group.readonly")
	itself := claims.Sub == "" && claims.Scope == "https://www.googleapis.com/auth/cloud-platform"
	if claims.Iss != g.Account || !delegated && !itself {
		write(w, http.StatusUnauthorized, object{"error": "unauthorized_client", "error_description": "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes requested."})
		return
	}
	g.give(w)
}

// sign is signJwt of the IAM Credentials API. It takes any access token.
func (g *Google) sign(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Payload string `json:"payload"`
	}
	if r.URL.Path != "/v1/projects/-/serviceAccounts/"+g.Account+":signJwt" || json.NewDecoder(r.Body).Decode(&asked) != nil ||
		!strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		googleError(w, http.StatusForbidden, "PERMISSION_DENIED", "Permission 'iam.serviceAccounts.signJwt' denied on resource (or it may not exist).")
		return
	}
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: googleKey()}, nil))
	write(w, http.StatusOK, object{"keyId": "key-2", "signedJwt": must(must(signer.Sign([]byte(asked.Payload))).CompactSerialize())})
}

func (g *Google) directory(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	g.mu.Lock()
	valid := g.valid[token]
	g.mu.Unlock()
	if !valid {
		googleError(w, http.StatusUnauthorized, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
		return
	}
	query := r.URL.Query()
	switch path := strings.TrimPrefix(r.URL.Path, "/admin/directory/v1/"); {
	case path == "groups":
		g.list(w, r)
	case strings.HasPrefix(path, "users/") && query.Get("projection") == "custom":
		schemas, known := g.Schemas[strings.TrimPrefix(path, "users/")]
		if !known {
			googleError(w, http.StatusNotFound, "", "Resource Not Found: userKey")
			return
		}
		shown := object{}
		for name, fields := range schemas {
			if slices.Contains(strings.Split(query.Get("customFieldMask"), ","), name) {
				shown[name] = fields
			}
		}
		write(w, http.StatusOK, object{"customSchemas": shown})
	default:
		googleError(w, http.StatusNotFound, "", "Not Found")
	}
}

func (g *Google) list(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	all, known := g.Groups[query.Get("userKey")]
	if !known {
		googleError(w, http.StatusNotFound, "", "Resource Not Found: userKey")
		return
	}
	var matching []object
	for _, email := range all {
		if domain := query.Get("domain"); domain == "" || strings.HasSuffix(email, "@"+domain) {
			matching = append(matching, object{"email": email})
		}
	}
	most, _ := strconv.Atoi(query.Get("maxResults"))
	if g.Page > 0 {
		most = min(most, g.Page)
	}
	skip, _ := strconv.Atoi(query.Get("pageToken"))
	answer := object{}
	if skip < len(matching) {
		answer["groups"] = matching[skip:min(skip+most, len(matching))]
	}
	if skip+most < len(matching) {
		answer["nextPageToken"] = strconv.Itoa(skip + most)
	}
	write(w, http.StatusOK, answer)
}

// googleError answers as Google's APIs do. The Directory API has no status.
func googleError(w http.ResponseWriter, status int, word, message string) {
	fault := object{"code": status, "message": message, "errors": []object{{"message": message, "domain": "global", "reason": "notFound"}}}
	if word != "" {
		fault["status"] = word
	}
	write(w, status, object{"error": fault})
}
