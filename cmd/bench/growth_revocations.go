package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nkeys"
)

// growthOfRevocations measures an account by how many users are revoked in it.
func growthOfRevocations(ctx context.Context, b *bench) (err error) {
	defer asPlugin()()
	sizes := scale(b, []int{0, 1000, 10_000}, []int{0, 100, 1000})
	key, token, err := newWorkload()
	if err != nil {
		return err
	}
	p, err := populate(ctx, len(sizes), key, token)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	names := map[int]string{}
	ids := map[int]string{}
	for i, size := range sizes {
		names[size], ids[size] = fmt.Sprint(i), p.ids[i]
		b.progress("revoking %d users", size)
		if err := p.revokeUsers(ctx, "account-"+names[size], size); err != nil {
			return err
		}
	}
	if err := deliverAll(ctx, b, p); err != nil {
		return err
	}
	changes := 0
	figures := growthFigures{}
	operations := []operation{
		{opLogin, 200, func(ctx context.Context, size int) error { return p.login(ctx, "role-"+names[size]) }},
		{"creds/:role", 200, func(ctx context.Context, size int) error {
			_, err := p.write(ctx, "creds/role-"+names[size], map[string]any{"jwt": token})
			return err
		}},
		{opChange, 5, func(ctx context.Context, size int) error {
			changes++
			_, err := p.write(ctx, "jwt/account-"+names[size], map[string]any{
				"type": "account", "config": fmt.Sprintf(`{"limits":{"conn":%d}}`, 100+changes),
			})
			return err
		}},
		{"one more revocation, delivered", 2, func(ctx context.Context, size int) error {
			return p.revokeUsers(ctx, "account-"+names[size], 1)
		}},
		{"account endpoint", 50, func(ctx context.Context, size int) error {
			_, err := p.read(ctx, "jwt/v1/accounts/"+ids[size])
			return err
		}},
	}
	if err := figures.take(ctx, scale(b, 11, 3), sizes, operations); err != nil {
		return err
	}
	for _, size := range sizes {
		account, err := p.read(ctx, "jwt/account-"+names[size])
		if err != nil {
			return err
		}
		figures.add(opSize, size, float64(len(account["jwt"].(string))))
	}

	t := table{Title: "Growth with live revocations of an account, in one process with storage in memory", Columns: sizeColumns("revocations", sizes)}
	for _, operation := range operations {
		t.Rows = append(t.Rows, figures.row(b, "revocations", operation.name, sizes))
	}
	length := []string{opSize}
	for _, size := range sizes {
		length = append(length, number(b.report.measured("growth", fmt.Sprintf("%s at %d revocations", opSize, size), "B", figures[opSize][size])/1024)+" KiB")
	}
	t.Rows = append(t.Rows, append(length, number(figures.growth(opSize, sizes))))
	b.show(t)
	b.report.Goals = append(b.report.Goals, goal{
		What: "growth of an account change to that of the account JWT", Most: true, Want: 1,
		Got:   figures.growth(opChange, sizes) / figures.growth(opSize, sizes),
		Where: fmt.Sprintf("%d revocations to %d", sizes[len(sizes)-1], sizes[0]),
	})
	return nil
}

// revokeUsers revokes users that never were.
func (m *mount) revokeUsers(ctx context.Context, account string, count int) error {
	return inParallel(ctx, count, func(ctx context.Context, _ int) error {
		key, err := nkeys.CreateUser()
		if err != nil {
			return err
		}
		public, err := key.PublicKey()
		if err != nil {
			return err
		}
		_, err = m.write(ctx, "jwt/"+account+"/revoke", map[string]any{"user_public_key": public})
		return err
	})
}
