package signalbox.client

import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals

class ReadmeTest {
    @Test
    fun `the README begins with a program that compiles`() {
        val block = File("README.md").readText().substringAfter("```kotlin\n").substringBefore("```")
        assertEquals(File("src/test/kotlin/TenLines.kt").readText(), block)
    }
}
