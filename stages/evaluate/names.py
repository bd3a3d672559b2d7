"""Given names that can stand for each other, one list a gender, so that `she` stays `she`.

None of them is also a word of English (Grace, Mark, Will, Rose, Frank …), part of a well-known place (San Francisco,
Santa Monica …), or a surname more often than a given name, so they can be found in texts without capital letters, too.
"""

WOMEN = """
Aisha Alice Amanda Amelia Anna Beatrice Camila Carla Catherine Christina Claudia Deborah Elena Elizabeth Emily Emma
Eva Fatima Gabriela Hannah Helen Ingrid Irene Isabella Jennifer Jessica Julia Karen Katherine Laura Linda Lisa
Margaret Maria Mariana Mary Michelle Nancy Natalie Nicole Olivia Patricia Priya Rachel Rebecca Samantha Sandra Sarah
Sophie Stephanie Susan Teresa Valentina Vanessa
"""
MEN = """
Adam Ahmed Alejandro Alexander Andrew Anthony Benjamin Brian Carlos Charles Christopher Daniel David Edward Eric
Fernando George Giovanni Gregory Henry Hiroshi Ivan James Jason Javier Jeffrey John Jonathan Joseph Joshua Kenji Kevin
Matthew Michael Miguel Mohammed Nicholas Oliver Patrick Paul Peter Philip Rafael Rahul Richard Robert Ronald Ryan
Samuel Stephen Steven Thomas Timothy Vladimir Walter William
"""
