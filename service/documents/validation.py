"""The pieces of `$jsonSchema` that the validators of collections with money share.

`long` and nothing else: an int32 would wrap at 2^31 and a double is no place for money.
"""

AMOUNT = {"bsonType": "long", "minimum": 0}
POSITIVE_AMOUNT = {"bsonType": "long", "minimum": 1}
TEXT = {"bsonType": "string", "minLength": 1}
OPTIONAL_TEXT = {"bsonType": ["string", "null"]}
TIME = {"bsonType": "date"}
HASH = {"bsonType": "string", "minLength": 64, "maxLength": 64}
COUNT = {"bsonType": ["int", "long"], "minimum": 0}
# What 64 bits may not hold: sums over all wallets or entries.
SUM = {"bsonType": "decimal", "minimum": 0}
