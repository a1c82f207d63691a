# 可以安全尝试大规模重构操作的AI智能体
import subprocess

def safe_ai_refactor(codebase_path, refactor_instructions):
    """尝试AI重构，如果失败则即时回滚"""
    
    # 在危险操作前创建检查点
    subprocess.run(["helios", "commit", "--work", "."])
    checkpoint = subprocess.check_output(["helios", "rev-parse", "HEAD"]).decode().strip()
    
    try:
        # 让AI智能体修改整个代码库
        ai_refactored_code = your_ai_agent.refactor_codebase(
            path=codebase_path,
            instructions=refactor_instructions
        )
        
        # 应用所有更改并提交
        for file_path, new_content in ai_refactored_code.items():
            with open(file_path, "w") as f:
                f.write(new_content)
        
        subprocess.run(["helios", "commit", "--work", "."])
        
        # 验证更改
        if run_all_tests() and passes_code_quality_checks():
            print("✅ AI重构成功!")
            return True
        else:
            raise Exception("测试失败或质量检查失败")
            
    except Exception as e:
        # 即时回滚到检查点(<0.1ms)
        print(f"❌ AI重构失败: {e}")
        subprocess.run(["helios", "checkout", checkpoint])
        print("🔄 已回滚到安全状态")
        return False

# 使用
success = safe_ai_refactor(
    "./src/", 
    "将所有类转换为使用依赖注入模式"
)
