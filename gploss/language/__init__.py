"""The language of losses: operators, terminals, formulas, grammars."""
