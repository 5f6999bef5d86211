#include "err.h"

#include <strings.h>

struct err_row {
	const char *code, *text;
	enum outcome outcome;
	bool is_retryable;
};

static const struct err_row err_rows[ERR_COUNT] = {
    [ERR_NONE] = {"NONE", "no error", OUTCOME_OK, false},
#define ERR(name, outcome, retryable, text) [ERR_##name] = {#name, text, OUTCOME_##outcome, retryable},
#include "err.def"
#undef ERR
};

static const char *const outcome_names[OUTCOME_COUNT] = {
    [OUTCOME_UNSPECIFIED] = "UNSPECIFIED",
    [OUTCOME_OK] = "OK",
    [OUTCOME_NOT_MODIFIED] = "NOT_MODIFIED",
    [OUTCOME_HTTP_ERROR] = "HTTP_ERROR",
    [OUTCOME_UNEXPECTED] = "UNEXPECTED",
    [OUTCOME_DNS] = "DNS",
    [OUTCOME_CONNECT] = "CONNECT",
    [OUTCOME_TLS] = "TLS",
    [OUTCOME_PROTOCOL] = "PROTOCOL",
    [OUTCOME_TIMEOUT] = "TIMEOUT",
    [OUTCOME_STALLED] = "STALLED",
    [OUTCOME_DISCONNECTED] = "DISCONNECTED",
    [OUTCOME_TOO_LARGE] = "TOO_LARGE",
    [OUTCOME_TOO_MANY_REDIRECTS] = "TOO_MANY_REDIRECTS",
    [OUTCOME_BLOCKED_ADDRESS] = "BLOCKED_ADDRESS",
    [OUTCOME_BLOCKED_ROBOTS] = "BLOCKED_ROBOTS",
    [OUTCOME_BLOCKED_POLICY] = "BLOCKED_POLICY",
    [OUTCOME_EXPIRED] = "EXPIRED",
    [OUTCOME_DEADLINE] = "DEADLINE",
    [OUTCOME_BAD_JOB] = "BAD_JOB",
    [OUTCOME_CANCELLED] = "CANCELLED",
    [OUTCOME_INTERNAL] = "INTERNAL",
};

static const struct err_row *err_row(int err)
{
	if (err <= -ERR_COUNT || err >= ERR_COUNT)
		err = ERR_INTERNAL;
	return &err_rows[err < 0 ? -err : err];
}

const char *err_code(int err)
{
	return err_row(err)->code;
}

const char *err_text(int err)
{
	return err_row(err)->text;
}

enum outcome err_outcome(int err)
{
	return err_row(err)->outcome;
}

bool err_retryable(int err)
{
	return err_row(err)->is_retryable;
}

const char *outcome_name(enum outcome outcome)
{
	return outcome_names[(unsigned)outcome < OUTCOME_COUNT ? outcome : OUTCOME_UNSPECIFIED];
}

enum outcome outcome_parse(const char *name)
{
	if (strncasecmp(name, "OUTCOME_", 8) == 0)
		name += 8;
	for (unsigned i = 0; i < OUTCOME_COUNT; i++)
		if (strcasecmp(name, outcome_names[i]) == 0)
			return (enum outcome)i;
	return OUTCOME_UNSPECIFIED;
}
