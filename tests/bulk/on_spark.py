"""What `test_engines` runs in a process of its own, which starts a JVM: prints one line of JSON.

python on_spark.py MODEL FILE
"""

import json
import sys

from pyspark.sql import SparkSession

from pocketbert import ColumnPipeline

if __name__ == "__main__":
    model, file = sys.argv[1:]
    settings = {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    frame = session.read.text(file).withColumnRenamed("value", "text").repartition(4)
    tag = ColumnPipeline("token-classification", model)
    schema = f"text string, {tag.schema}"
    pandas, arrow = (
        [row.asDict(recursive=True) for row in found.collect()]
        for found in (frame.mapInPandas(tag.each, schema), frame.mapInArrow(tag.each, schema))
    )
    sys.stdout.write(json.dumps({"pandas": pandas, "arrow": arrow}) + "\n")
    session.stop()
