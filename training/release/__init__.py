"""Is one bundle better than another, and may it take the other's place?"""
