/* when - points in time as people give them. */
#include "clock.h"
#include "ctl.h"
#include "err.h"

#include <ctype.h>
#include <time.h>

/* ".250Z", "+01:00", "" (local time): what stands behind the seconds. */
static int parse_zone(const char *at, struct tm *tm, int64_t *ret_ms)
{
	int hours, minutes, n = 0, milli = 0;
	char sign;

	if (*at == '.' && isdigit((unsigned char)at[1])) {
		milli = (int)(strtod(at, NULL) * 1000);
		at += 1 + strspn(at + 1, "0123456789");
	}
	if (strcmp(at, "Z") == 0) {
		*ret_ms = (int64_t)timegm(tm) * 1000 + milli;
	} else if (sscanf(at, "%c%2d:%2d%n", &sign, &hours, &minutes, &n) == 3 && !at[n] && (sign == '+' || sign == '-')) {
		int64_t shift_ms = (hours * INT64_C(60) + minutes) * 60000;
		*ret_ms = (int64_t)timegm(tm) * 1000 + milli - (sign == '+' ? shift_ms : -shift_ms);
	} else if (!*at) {
		tm->tm_isdst = -1;
		*ret_ms = (int64_t)mktime(tm) * 1000 + milli;
	} else {
		return -ERR_INVALID;
	}
	return 0;
}

int when_parse(const char *text, int64_t *ret_ms)
{
	static const char *const formats[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M",
					      "%Y-%m-%d"};
	int64_t ago_ms;

	/* A bare number could be an offset, seconds, or milliseconds: nobody knows. */
	if (!options_parse_duration(text, &ago_ms) && strcmp(text, "0") != 0) {
		*ret_ms = clock_epoch_ms() - ago_ms;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		struct tm tm = {0};
		const char *end = strptime(text, formats[i], &tm);

		if (end && !parse_zone(end, &tm, ret_ms))
			return 0;
	}
	return -ERR_INVALID;
}
