/* err - one table of everything that can go wrong: code, outcome, retryable, text.
 *
 * Functions return 0 or a negative `-ERR_X`. The table says which outcome a job's result gets and whether another attempt
 * may help, so policy is data. Layer 0. */
#ifndef GATHERD_ERR_H
#define GATHERD_ERR_H

#include "base.h"

/* Same numbers as gatherd.v1.Outcome in proto/gatherd/v1/result.proto (asserted in result.c). */
enum outcome {
	OUTCOME_UNSPECIFIED,
	OUTCOME_OK,
	OUTCOME_NOT_MODIFIED,
	OUTCOME_HTTP_ERROR,
	OUTCOME_UNEXPECTED,
	OUTCOME_DNS,
	OUTCOME_CONNECT,
	OUTCOME_TLS,
	OUTCOME_PROTOCOL,
	OUTCOME_TIMEOUT,
	OUTCOME_STALLED,
	OUTCOME_DISCONNECTED,
	OUTCOME_TOO_LARGE,
	OUTCOME_TOO_MANY_REDIRECTS,
	OUTCOME_BLOCKED_ADDRESS,
	OUTCOME_BLOCKED_ROBOTS,
	OUTCOME_BLOCKED_POLICY,
	OUTCOME_EXPIRED,
	OUTCOME_DEADLINE,
	OUTCOME_BAD_JOB,
	OUTCOME_CANCELLED,
	OUTCOME_INTERNAL,
	OUTCOME_COUNT
};

enum err {
	ERR_NONE,
#define ERR(name, outcome, retryable, text) ERR_##name,
#include "err.def"
#undef ERR
	ERR_COUNT
};

/* `err` may be given with either sign; out of range gives INTERNAL. */
const char *err_code(int err);           /* "CONNECT_REFUSED" */
const char *err_text(int err);           /* "the server refused the connection" */
enum outcome err_outcome(int err);
bool err_retryable(int err);

const char *outcome_name(enum outcome outcome); /* "OK", without the prefix */
/* OUTCOME_UNSPECIFIED when there is none of that name (case is ignored, an OUTCOME_ prefix is taken). */
enum outcome outcome_parse(const char *name);

#endif
