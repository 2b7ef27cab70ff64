package management

import "github.com/settmq/settmq/auth"

func hashPassword(r *request) (any, error) {
	hash, err := auth.HashPassword(r.param("password"))
	if err != nil {
		return nil, badRequest("an empty password would never log in")
	}
	return object{{"ok", auth.EncodeHash(auth.SHA256, hash)}}, nil
}

func loginAttempts(r *request) (any, error) {
	if err := r.thisNode(); err != nil {
		return nil, err
	}
	list := []object{}
	for _, c := range r.broker.Users().Logins() {
		list = append(list, object{
			{"protocol", c.Protocol},
			{"auth_attempts", c.Succeeded + c.Failed},
			{"auth_attempts_failed", c.Failed},
			{"auth_attempts_succeeded", c.Succeeded},
		})
	}
	return list, nil
}

// loginAttemptsBySource is empty, as RabbitMQ's is unless it is told to keep them: who fails is in the log.
func loginAttemptsBySource(r *request) (any, error) {
	if err := r.thisNode(); err != nil {
		return nil, err
	}
	return []object{}, nil
}

func forgetLoginAttempts(r *request) (any, error) {
	if err := r.thisNode(); err != nil {
		return nil, err
	}
	r.broker.Users().ForgetLogins()
	return noContent, nil
}
