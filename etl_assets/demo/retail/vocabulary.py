"""The words of the shop: names, segments and categories with all the ways people spell them."""

from __future__ import annotations

FIRST_NAMES = (
    "Amina", "Benjamin", "Carla", "Dmitri", "Élodie", "Fatima", "Georg", "Hannah", "Ibrahim", "José", "Keiko", "Lars",
    "Mónica", "Noah", "Olga", "Priya", "Quentin", "Renée", "Sören", "Teresa", "Umar", "Vera", "Wendy", "Zoë",
)  # fmt: skip
LAST_NAMES = (
    "Abbott", "Bauer", "Castillo", "Dupont", "Eriksson", "Fischer", "Garcia", "Huang", "Ivanova", "Jensen", "Kowalski",
    "Larsen", "Müller", "Nguyen", "Okafor", "Peña", "Quinn", "Rossi", "Silva", "Tanaka", "Usman", "Varga", "Weber",
)  # fmt: skip
MIXED_CASE_NAMES = ("McDonald", "MacLeod", "O'Neil", "DeVries", "FitzGerald")

SEGMENTS = ("Standard", "Basic", "Premium", "VIP", "Unknown")
SEGMENT_SPELLINGS: tuple[tuple[str | None, int], ...] = (
    ("Standard", 0), ("STANDARD", 0), ("standard", 0), ("STD", 0), ("Std", 0),
    ("Basic", 1), ("BASIC", 1), ("basic", 1), ("BSC", 1), ("Bsc", 1),
    ("Premium", 2), ("PREMIUM", 2), ("premium", 2), ("PREM", 2), ("Prem", 2),
    ("VIP", 3), ("vip", 3), ("V.I.P.", 3), ("VVIP", 3),
    (None, 4),
)  # fmt: skip
"""Every spelling that the pipeline declares, with the index of the segment it means."""
UNDECLARED_SEGMENT = "Gold Member"

COUNTRIES = ("US", "CA", "GB")
COUNTRY_SPELLINGS: tuple[tuple[str, int], ...] = (
    ("US", 0), ("USA", 0), ("United States", 0), ("CA", 1), ("Canada", 1), ("GB", 2), ("United Kingdom", 2),
)  # fmt: skip

CATEGORIES = ("Apparel", "Books", "Electronics", "Home")
CATEGORY_SPELLINGS: tuple[tuple[str, int], ...] = (
    ("Apparel", 0), ("APPAREL", 0), ("Clothing", 0), ("Books", 1), ("books", 1), ("Book", 1),
    ("Electronics", 2), ("electronics", 2), ("Electronic", 2), ("Home", 3), ("HOME", 3), ("Home & Garden", 3),
)  # fmt: skip
NO_CATEGORY = "Unknown"

BRANDS = ("Northwind", "Acorn & Co", "Bluebird", "Cedar", "Dunlin", "Ember", "Fjord", "Gannet")
THINGS = (
    ("Rain Jacket", "Wool Jumper", "Linen Shirt", "Walking Boots"),
    ("Travel Stories", "Field Guide", "Short Novels", "Garden Almanac"),
    ("Headphones", "Keyboard", "Smart Watch", "Speaker"),
    ("Table Lamp", "Curtain Panel", "Bookshelf", "Kitchen Scale"),
)
"""Names of products per category."""

AREA_CODES = ("206", "212", "305", "312", "404", "415", "512", "617", "702", "808")
STREETS = ("Oak Avenue", "Pine Street", "Mill Lane", "Harbour Road", "Station Road")
TOWNS = ("Springfield", "Riverton", "Lakeside", "Fairview")
PAYMENT_METHODS = ("Bank Transfer", "Cash", "Credit Card", "Debit Card", "PayPal")
