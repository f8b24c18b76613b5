package roles

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const benchToken = `{"sub": "project_path:shop/web:ref_type:branch:ref:main", "project_path": "shop/web", "ref": "main", "groups": ["dev", "ops"], "n": 42}`

func BenchmarkBind(b *testing.B) {
	for name, change := range map[string]func(*Role){
		"claims": func(r *Role) {
			r.BoundClaims = map[string]any{"project_path": "shop/web", "ref": []any{"main", "next"}}
		},
		"globs": func(r *Role) {
			r.BoundClaimsType, r.BoundClaims = BoundClaimsGlob, map[string]any{"project_path": "shop/*", "ref": "m*"}
		},
		"expression": func(r *Role) {
			r.BoundExpression = `claims.project_path.startsWith("shop/") && claims.ref in ["main", "next"]`
		},
	} {
		b.Run(name, func(b *testing.B) {
			c, p := compile(b, jwtRole(change)), token(b, benchToken)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Bind(p, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRender(b *testing.B) {
	for name, change := range map[string]func(*Role){
		"constant": template(`{"pub": {"allow": ["orders.>"]}, "sub": {"allow": ["_INBOX.>"]}}`),
		"claims":   template(`{"pub": {"allow": ["orders.{{claim(project_path)}}.>", "ref.{{claim(ref)}}"]}, "sub": {"allow": ["_INBOX.>"]}}`),
		"lists":    template(`{"pub": {"allow": ["orders.{{claim(groups)}}.>"]}, "tags": ["group:{{claim(groups)}}"]}`),
		"scoped": func(r *Role) {
			r.Scoped, r.UserTemplate = true, `{"pub": {"allow": ["orders.{{tag(ref)}}.>"]}, "tags": ["ref:{{claim(ref)}}"]}`
		},
	} {
		b.Run(name, func(b *testing.B) {
			c := compile(b, jwtRole(change))
			bound, err := c.Bind(token(b, benchToken), now)
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Render(bound, account, userKey); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCompile is what a role costs when it is written, or first used.
func BenchmarkCompile(b *testing.B) {
	r := jwtRole(template(`{"pub": {"allow": ["orders.{{claim(project_path)}}.>", "ref.{{claim(ref)}}"]}}`))
	r.BoundExpression = `claims.project_path.startsWith("shop/")`
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Compile(); err != nil {
			b.Fatal(err)
		}
	}
}
