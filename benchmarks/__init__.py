"""One script a claim, named as the claim; results/ holds what they measured."""
