#include "field.h"

#include <strings.h>

static bool is_token_char(uint8_t c)
{
	if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
		return true;
	return c && strchr("!#$%&'*+-.^_`|~", c);
}

size_t field_token_len(const char *text)
{
	size_t len = 0;

	while (is_token_char((uint8_t)text[len]))
		len++;
	return len;
}

bool field_is_token(const char *text)
{
	size_t len = field_token_len(text);

	return len && !text[len];
}

bool field_is_value(struct span value)
{
	for (size_t i = 0; i < value.len; i++)
		if ((value.data[i] < 0x20 && value.data[i] != '\t') || value.data[i] == 0x7f)
			return false;
	return true;
}

bool field_is_one_of(const char *name, const char *const names[], size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcasecmp(name, names[i]) == 0)
			return true;
	return false;
}

bool field_is_denied(const char *name)
{
	static const char *const denied[] = {"host", "content-length", "transfer-encoding", "connection", "keep-alive",
					     "te",   "trailer",	       "upgrade",	    "expect"};

	return strncasecmp(name, "proxy-", 6) == 0 || field_is_one_of(name, denied, ARRAY_LEN(denied));
}
