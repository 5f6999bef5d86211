#include "retry.h"

#include "err.h"

#include <curl/curl.h>

#define DATE_BYTES_MAX 63 /* "Sunday, 06-Nov-94 08:49:37 GMT" takes 30 */

bool retry_is_idempotent(const char *method)
{
	static const char *const idempotent[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"};

	for (size_t i = 0; i < ARRAY_LEN(idempotent); i++)
		if (strcmp(method, idempotent[i]) == 0)
			return true;
	return false;
}

static bool status_may_help(int status)
{
	switch (status) {
	case 408: /* Request Timeout */
	case 425: /* Too Early, RFC 8470 */
	case 429: /* Too Many Requests, RFC 6585 */
		return true;
	case 501: /* Not Implemented */
	case 505: /* HTTP Version Not Supported */
		return false;
	default:
		return status >= 500 && status <= 599;
	}
}

bool retry_may_help(int err, int status)
{
	if (err == 0)
		return false;
	if (err == ERR_HTTP_STATUS || err == -ERR_HTTP_STATUS)
		return status_may_help(status);
	return err_retryable(err);
}

/* min(max, base x 2^(attempts - 1)), at most INT32_MAX so that it can be multiplied by 32 random bits. */
static int64_t backoff_cap_ms(const struct retry_policy *policy, int attempts)
{
	int64_t max = MIN(MAX(policy->max_ms, 0), INT32_MAX), cap = MIN(MAX(policy->base_ms, 0), max);

	for (int i = 1; i < attempts && cap > 0 && cap < max; i++)
		cap = MIN(cap * 2, max);
	return cap;
}

int64_t retry_wait_ms(const struct retry_policy *policy, int err, int status, const char *method, int attempts,
		      int64_t retry_after_ms, int64_t left_ms, uint32_t random)
{
	if (attempts >= policy->max_attempts || !retry_may_help(err, status) || !retry_is_idempotent(method))
		return -1;
	uint64_t choices = (uint64_t)backoff_cap_ms(policy, attempts) + 1;
	int64_t wait_ms = MAX((int64_t)(choices * random >> 32), retry_after_ms);
	return wait_ms < left_ms ? wait_ms : -1;
}

static bool is_digits(const char *s)
{
	return *s && s[strspn(s, "0123456789")] == '\0';
}

int64_t retry_after_ms(struct span value, int64_t now_epoch_ms)
{
	char text[DATE_BYTES_MAX + 1];
	size_t first = 0, end = value.len;

	while (first < end && (value.data[first] == ' ' || value.data[first] == '\t'))
		first++;
	while (end > first && (value.data[end - 1] == ' ' || value.data[end - 1] == '\t'))
		end--;
	if (end == first || end - first > DATE_BYTES_MAX || memchr(value.data + first, '\0', end - first))
		return 0;
	memcpy(text, value.data + first, end - first);
	text[end - first] = '\0';
	if (is_digits(text)) {
		/* Over 9 digits is over 31 years: any number that large means "never", and must not overflow. */
		const char *number = text + strspn(text, "0");
		return strlen(number) > 9 ? INT64_C(999999999) * 1000 : strtoll(text, NULL, 10) * 1000;
	}
	time_t date = curl_getdate(text, NULL);
	if (date == -1)
		return 0;
	return MAX((int64_t)date * 1000 - now_epoch_ms, 0);
}
